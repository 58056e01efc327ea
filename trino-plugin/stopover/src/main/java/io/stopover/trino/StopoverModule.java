/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino;

import com.google.inject.Binder;
import com.google.inject.Module;
import com.google.inject.Scopes;
import io.stopover.trino.client.DaemonClient;
import io.stopover.trino.client.DaemonFailover;
import io.stopover.trino.client.DaemonProbe;
import io.stopover.trino.client.Daemons;
import io.stopover.trino.client.FailureLog;
import io.stopover.trino.client.Fleet;
import io.stopover.trino.client.HandlePlanner;
import io.stopover.trino.client.Homes;
import io.stopover.trino.client.HttpTransport;
import io.stopover.trino.client.StartupCheck;
import io.stopover.trino.client.Token;

import static io.airlift.configuration.ConfigBinder.configBinder;
import static org.weakref.jmx.guice.ExportBinder.newExporter;

/** The objects of one exchange manager. */
public class StopoverModule
        implements Module
{
    @Override
    public void configure(Binder binder)
    {
        configBinder(binder).bindConfig(StopoverConfig.class);
        configBinder(binder).bindConfig(StopoverTlsConfig.class);
        binder.bind(Token.class).in(Scopes.SINGLETON);
        binder.bind(HttpTransport.class).in(Scopes.SINGLETON);
        binder.bind(DaemonClient.class).in(Scopes.SINGLETON);
        binder.bind(Daemons.class).in(Scopes.SINGLETON);
        binder.bind(DaemonProbe.class).in(Scopes.SINGLETON);
        binder.bind(FailureLog.class).in(Scopes.SINGLETON);
        binder.bind(Fleet.class).in(Scopes.SINGLETON);
        binder.bind(Homes.class).in(Scopes.SINGLETON);
        binder.bind(HandlePlanner.class).in(Scopes.SINGLETON);
        binder.bind(StartupCheck.class).in(Scopes.SINGLETON);
        binder.bind(DaemonFailover.class).in(Scopes.SINGLETON);
        binder.bind(VirtualThreads.class).toInstance(new VirtualThreads());
        binder.bind(StopoverStats.class).in(Scopes.SINGLETON);
        newExporter(binder).export(StopoverStats.class).withGeneratedName();
        newExporter(binder).export(Daemons.class).withGeneratedName();
        binder.bind(StopoverExchangeManager.class).in(Scopes.SINGLETON);
    }
}
